"""Settings of the site: those of the portal, with people who log in, the admin, and uploads by tus."""

import os
import secrets

from django.core.exceptions import ImproperlyConfigured

from portal.settings import *  # noqa: F403
from portal.settings import STORAGE_BACKEND, VAR

USER = "portal"
"""Who may log in, and see the admin."""


def kept(name: str) -> str:
    """A secret that is made once, and kept in a file below VAR that nobody else can read."""
    path = VAR / name
    try:
        with open(path, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(12 if name == "password" else 48))
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = kept("secret-key")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ROOT_URLCONF = "portal.web.urls"
WSGI_APPLICATION = "portal.web.wsgi.application"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "storage",
    "storage.tus",
    "portal.web",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "portal.web.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Each place has its own rows: those of another would name objects that are not in it.
PLACE = "" if STORAGE_BACKEND == "local" else f"-{os.environ.get('AWS_STORAGE_BUCKET_NAME', '')}"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": VAR / f"site{PLACE}.sqlite3",
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}

STATIC_URL = "static/"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

STORAGE_TUS_AUTHORIZE = "portal.web.rules.authorize"
STORAGE_TUS_INSPECT = "portal.web.rules.inspect"
STORAGE_TUS_MAX_SIZE = None
if given := os.environ.get("PORTAL_MAX_SIZE"):
    if not (given.isascii() and given.isdigit()):
        raise ImproperlyConfigured(f"PORTAL_MAX_SIZE is a number of bytes, such as 20000000000, not {given!r}")
    STORAGE_TUS_MAX_SIZE = int(given)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
