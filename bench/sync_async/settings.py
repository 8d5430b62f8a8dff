"""Settings of a synchronous Django project: WSGI, one kept connection per thread, durable commits, no middleware."""

import os

import environ

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["bench.sync_async"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "bench.sync_async.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        **environ.Env.db_url_config(os.environ["DATABASE_URL"]),
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": None,  # gunicorn's threads live as long as their process: no connection per request
    }
}
PROCESSOR_URL = os.environ.get("PROCESSOR_URL", "")
