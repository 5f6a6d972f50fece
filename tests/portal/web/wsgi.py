"""For gunicorn. Static files are served by Django too: there is no server in front."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.web.settings")

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

application = StaticFilesHandler(get_wsgi_application())
