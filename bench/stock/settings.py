"""Settings of a minimal Django project: no middleware, Django's psycopg pool, durable commits."""

import os

import environ

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["bench.stock"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "bench.stock.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        **environ.Env.db_url_config(os.environ["DATABASE_URL"]),
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": 0,
        "OPTIONS": {"pool": {"min_size": 5, "max_size": 30, "timeout": 30}},  # Registry's own limits
    }
}
