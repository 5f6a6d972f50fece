"""Settings of the portal. Whatever it writes is below $PORTAL_VAR (else var/ beside this)."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
VAR = Path(os.environ.get("PORTAL_VAR") or BASE_DIR / "var").absolute()
VAR.mkdir(parents=True, exist_ok=True)

SECRET_KEY = "only for tests and the demo"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"  # Django's default is that of Chicago
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "storage",  # system checks
    "portal",
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": VAR / "portal.sqlite3",
        "OPTIONS": {"timeout": 30},
    }
}

# STORAGE_BACKEND=s3 and AWS_STORAGE_BUCKET_NAME move the portal to a bucket; credentials come from the environment too.
STORAGE_BACKEND = os.environ.get("STORAGE_BACKEND", "local")
if STORAGE_BACKEND == "local":
    STORAGE_TEMP_DIR = VAR / "temp"
    STORAGE_FINAL_DIR = VAR / "final"
else:
    AWS_STORAGE_BUCKET_NAME = os.environ.get("AWS_STORAGE_BUCKET_NAME", "")
    AWS_S3_ENDPOINT_URL = os.environ.get("AWS_S3_ENDPOINT_URL", "")
