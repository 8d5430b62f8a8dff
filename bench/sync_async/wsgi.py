"""Django's WSGI handler."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.sync_async.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
