"""The setting LOGGING of the servers in this folder: a line for each request that Django logs, which tests look for."""

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "LOG %(name)s %(status_code)s %(message)r"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"django.request": {"handlers": ["console"], "propagate": False}},
}
