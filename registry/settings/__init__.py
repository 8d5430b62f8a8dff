"""Every setting, typed and read once. Bad values stop the start with the variable's name and what it wanted."""

import os
import re
import socket
import sys
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from registry.data.addresses import django_database, postgres, primary, redis, replica, rq_queue
from registry.settings.secret_keys import secret_key, secret_key_fallbacks
from registry.settings.variables import (
    emails,
    encryption_keys,
    flag,
    mailer,
    names,
    networks,
    pairs,
    required_url,
    share,
    signing_secret,
    url,
    url_with,
    whole,
)

BASE_DIR = Path(__file__).resolve().parents[2]
env = environ.Env()
REGISTRY_DATA = Path(os.environ.get("REGISTRY_DATA", BASE_DIR / ".data")).resolve()


LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}

DEBUG = flag("DEBUG", False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=sorted(LOOPBACK))
if bad := [host for host in ALLOWED_HOSTS if not re.fullmatch(r"\*|\.?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:.]+\]", host)]:
    raise ImproperlyConfigured(
        f"ALLOWED_HOSTS wants host names without scheme and port, separated by commas, not {bad[0]!r}"
    )
if "*" in ALLOWED_HOSTS and not DEBUG:
    raise ImproperlyConfigured("ALLOWED_HOSTS wants host names, not *, when DEBUG is off")
SECRET_KEY = secret_key(REGISTRY_DATA, debug=DEBUG)
SECRET_KEY_FALLBACKS = secret_key_fallbacks(debug=DEBUG)

# A host that other machines can reach makes this a production service: pages and cookies over https only.
PRODUCTION = not DEBUG and not set(ALLOWED_HOSTS) <= LOOPBACK
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_REDIRECT_EXEMPT = [r"^health", r"^metrics$"]
TRUSTED_PROXIES = networks("TRUSTED_PROXIES")  # trusted for address, scheme and host: registry.edge.proxies
# HSTS (RFC 6797) binds browsers for months and cannot be revoked: this host only, unless configured.
HSTS_SECONDS = whole("HSTS_SECONDS", 31_536_000)
SECURE_HSTS_SECONDS = HSTS_SECONDS if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = flag("HSTS_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = flag("HSTS_PRELOAD", False)
if SECURE_HSTS_PRELOAD and (not SECURE_HSTS_INCLUDE_SUBDOMAINS or HSTS_SECONDS < 31_536_000):
    raise ImproperlyConfigured(
        "HSTS_PRELOAD wants HSTS_SUBDOMAINS and HSTS_SECONDS of a year: browsers' lists demand both"
    )
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]  # they ask for subdomains and preload of every service
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
CSRF_TRUSTED_ORIGINS = (
    [f"https://{host.lstrip('.')}" for host in ALLOWED_HOSTS if host not in LOOPBACK] if PRODUCTION else []
)

INSTALLED_APPS = [
    "registry",
    "queueing",
    "payments",
    "django_async_backend",
    "django_rq",
    "django_htmx",
    "waffle",
    "registry.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    *names("REGISTRY_APPS"),  # the operator's own: their `jobs.py` adds kinds of jobs
]

if "runserver" in sys.argv:
    # Daphne's runserver serves ASGI. Its app imports Twisted, which other commands do not need.
    INSTALLED_APPS.insert(0, "daphne")

# The pages' middleware. Requests to the API pass none of it: registry.edge.handler.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "registry.edge.pages.AwayMiddleware",
]
SECURE_CSP = {
    "default-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "connect-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}

ROOT_URLCONF = "registry.urls"
ASGI_APPLICATION = "registry.asgi.application"
APPEND_SLASH = False
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["registry.operators.formats"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
PASSWORD_RESET_TIMEOUT = 3600  # seconds that the link of a forgotten password is valid
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = (
    True  # registry.edge.static_files: read once at the start from where they lie: there is no collectstatic to forget
)
WHITENOISE_AUTOREFRESH = False

# -- Data layer (requirement D2): registry.data.database enforces each of these -----------------------
DB_POOL_MIN = whole("DB_POOL_MIN", 5, least=1)  # connections kept open
DB_POOL_MAX = whole("DB_POOL_MAX", 20, least=1)  # connections kept for reuse
DB_POOL_OVERFLOW = whole("DB_POOL_OVERFLOW", 10)  # opened above that under load, closed when returned
DB_POOL_TIMEOUT = whole("DB_POOL_TIMEOUT", 30, least=1)  # seconds a caller waits for a connection
DB_POOL_RECYCLE = whole("DB_POOL_RECYCLE", 3600, least=1)  # seconds after which a connection is replaced
DB_QUERY_TIMEOUT = whole("DB_QUERY_TIMEOUT", 30, least=1)  # seconds a statement may take
DB_RETRY_ATTEMPTS = whole("DB_RETRY_ATTEMPTS", 3, least=1)  # tries of a statement that is safe to repeat
DB_RETRY_BACKOFF = whole("DB_RETRY_BACKOFF", 2, least=1)  # factor between waits
DB_RETRY_MAX = whole("DB_RETRY_MAX", 10, least=1)  # seconds, the longest wait between tries
BATCH_SIZE = whole("BATCH_SIZE", 100, least=1)  # rows per page of a bulk read or write
CONCURRENT_OPERATIONS = whole("CONCURRENT_OPERATIONS", 10, least=1)  # queries one call may run side by side
# PostgreSQL itself, where DATABASE_URL names a pooler: for LISTEN, which a pooler's transaction mode has not.
DATABASE_DIRECT = primary(
    "DATABASE_DIRECT_URL", postgres("DATABASE_DIRECT_URL", os.environ.get("DATABASE_DIRECT_URL", ""))
)
# Whether DATABASE_URL names a pooler in transaction mode: nothing may be kept in a session between two transactions.
DB_TRANSACTION_POOLING = flag("DB_TRANSACTION_POOLING", bool(DATABASE_DIRECT))
if DATABASE_DIRECT and not DB_TRANSACTION_POOLING:
    raise ImproperlyConfigured(
        "DATABASE_DIRECT_URL wants DB_TRANSACTION_POOLING not to be off: else DATABASE_URL is enough"
    )
DB_PREPARE = flag("DB_PREPARE", not DB_TRANSACTION_POOLING)  # a pooler has to know of prepared statements
if DB_POOL_MIN > DB_POOL_MAX:
    raise ImproperlyConfigured(f"DB_POOL_MIN ({DB_POOL_MIN}) wants to be at most DB_POOL_MAX ({DB_POOL_MAX})")
if (
    DB_POOL_MAX + DB_POOL_OVERFLOW < 2
):  # a page with concurrent reads already holds one: it would wait for itself and always fail with 503
    raise ImproperlyConfigured("DB_POOL_MAX and DB_POOL_OVERFLOW want to be at least 2 together")

# A host that is cut off within a transaction holds its locks, among them the one by which a tenant's events are numbered, until
# PostgreSQL ends the session: after as long as others wait before they take its work.
DB_IDLE_IN_TRANSACTION = 5  # seconds; nothing but Python runs between two statements of a transaction
# PostgreSQL's default random_page_cost of 4 is for spinning disks: plans would scan small tables, also after they have grown.
DB_SESSION = (
    f"-c statement_timeout={DB_QUERY_TIMEOUT * 1000}"
    f" -c idle_in_transaction_session_timeout={DB_IDLE_IN_TRANSACTION * 1000} -c random_page_cost=1.1"
)
DATABASES = {
    "default": {
        **django_database(primary("DATABASE_URL", postgres("DATABASE_URL", required_url("DATABASE_URL")))),
        "ENGINE": "registry.data.postgresql",
        "CONN_MAX_AGE": 0,
        "DISABLE_SERVER_SIDE_CURSORS": DB_TRANSACTION_POOLING,
    }
}
DATABASES["default"]["OPTIONS"] |= {
    "connect_timeout": 2 if "," in DATABASES["default"]["HOST"] else 5,  # per host
    # A pooler refuses them at the start of a session: its own configuration sets them.
    **({} if DB_TRANSACTION_POOLING else {"options": DB_SESSION}),
    # Detect a server that vanished within seconds instead of the kernel's hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
}
ASYNC_BACKEND_DISABLE_REQUEST_SIGNALS = True  # registry.edge.handler gives connections back itself

# A replica for lists, exports and figures, and how far it may be behind (registry.data.reading).
DATABASE_READ = replica("DATABASE_READ_URL", postgres("DATABASE_READ_URL", os.environ.get("DATABASE_READ_URL", "")))
DATABASE_READ_MAX_LAG = whole("DATABASE_READ_MAX_LAG", 5, least=1)  # seconds

REDIS_URL = redis("REDIS_URL", required_url("REDIS_URL"))
# Prefix of every name in Redis; empty: the name in the database (registry.data.identity).
REGISTRY_ID = os.environ.get("REGISTRY_ID", "")
if REGISTRY_ID and not re.fullmatch(r"[a-z0-9-]{1,40}", REGISTRY_ID):
    raise ImproperlyConfigured(f"REGISTRY_ID wants up to 40 of a-z, 0-9 and -, got {REGISTRY_ID!r}")
LIVE_REDIS_URL = redis("LIVE_REDIS_URL", os.environ.get("LIVE_REDIS_URL", REDIS_URL))
RQ_REDIS_URL = redis("RQ_REDIS_URL", os.environ.get("RQ_REDIS_URL", REDIS_URL))
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "registry.data.channels.OwnLayer",
        "CONFIG": {"hosts": [LIVE_REDIS_URL]},
    }
}

RQ_QUEUES = {
    name: {**rq_queue(RQ_REDIS_URL), "DEFAULT_TIMEOUT": 900, "QUEUE_CLASS": "queueing.work.rq_queues.ServiceQueue"}
    for name in ("drain", "housekeeping")
}
RQ_SHOW_ADMIN_LINK = False

# Switches between queued and inline (registry.models.Flag); payments defines their admin page.
WAFFLE_FLAG_MODEL = "registry.Flag"
WAFFLE_ENABLE_ADMIN_PAGES = False

# -- This host, among those that share the database and Redis (docs/scale.md) ---------------------------
REGISTRY_HOST = os.environ.get("REGISTRY_HOST", "") or socket.gethostname()[:63]
if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", REGISTRY_HOST):
    raise ImproperlyConfigured(f"REGISTRY_HOST wants up to 63 of letters, digits, and . _ -, got {REGISTRY_HOST!r}")
# `up` sets these for its processes: its --role, and the name of the part.
REGISTRY_ROLE = os.environ.get("REGISTRY_ROLE", "") or "all"
REGISTRY_VERSION = os.environ.get("REGISTRY_VERSION", "")  # of the code; `up` finds it where it is not set
REGISTRY_PROCESS = os.environ.get("REGISTRY_PROCESS", "")
if REGISTRY_ROLE not in ("all", "web", "worker", "housekeeping"):
    raise ImproperlyConfigured(f"REGISTRY_ROLE wants all, web, worker or housekeeping, got {REGISTRY_ROLE!r}")

# -- Registry's own --------------------------------------------------------------------------------
REGISTRY_OPEN_TENANT = os.environ.get("REGISTRY_OPEN_TENANT", "")  # slug; keyless requests act as it
# The public address for links; else links are paths.
REGISTRY_URL = url("REGISTRY_URL", os.environ.get("REGISTRY_URL", "").rstrip("/"), "http", "https")
# The engine that stores writes while PostgreSQL is unavailable (queueing.spill), and whether all payments use it.
SPILL = os.environ.get("SPILL", "") or "file"
INTAKE = os.environ.get("INTAKE", "") or "direct"
SPILL_FOLDER = REGISTRY_DATA / "spill"
SPILL_MAX_BYTES = whole("SPILL_MAX_BYTES", 268435456, least=65536)  # per process and kind of write
SPILL_REDIS_URL = redis("SPILL_REDIS_URL", os.environ.get("SPILL_REDIS_URL", REDIS_URL))
if SPILL not in ("file", "stream"):
    raise ImproperlyConfigured(f"SPILL wants file or stream, got {SPILL!r}")
if INTAKE not in ("direct", "stream"):
    raise ImproperlyConfigured(f"INTAKE wants direct or stream, got {INTAKE!r}")
MAX_BODY = whole("REGISTRY_MAX_BODY", 64 * 1024, least=1024)  # bytes of a POST /payments
MAX_BATCH_BODY = whole("REGISTRY_MAX_BATCH_BODY", 4 * 1024 * 1024, least=1024)  # bytes of a batch
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BATCH_BODY
MAX_PUSH_BODY = whole("REGISTRY_MAX_PUSH_BODY", 8 * 1024 * 1024, least=1024)  # bytes of a push or transaction
# Whether webhooks may go to loopback and private networks: allowed for a service that only this machine can reach.
WEBHOOK_ALLOW_PRIVATE = flag("WEBHOOK_ALLOW_PRIVATE", not PRODUCTION)
JOB_RETENTION = whole("REGISTRY_JOB_RETENTION", 30, least=1)  # days that succeeded and canceled jobs are kept
FAILED_JOB_RETENTION = whole("REGISTRY_FAILED_JOB_RETENTION", 90, least=1)  # the same of failed ones
QUEUE_ENCRYPTION_KEYS = encryption_keys("QUEUE_ENCRYPTION_KEYS")  # the first encrypts, all decrypt
DEFAULT_SUBSCRIPTION_MODE = os.environ.get("DEFAULT_SUBSCRIPTION_MODE", "") or "all"  # of new consumer groups
if DEFAULT_SUBSCRIPTION_MODE not in ("all", "new"):
    raise ImproperlyConfigured(f"DEFAULT_SUBSCRIPTION_MODE wants all or new, got {DEFAULT_SUBSCRIPTION_MODE!r}")
# -- Sign-up and billing of tenants (payments.billing) -------------------------------------------
SIGN_UP = flag("SIGN_UP", not PRODUCTION)  # whether anybody may create a tenant
BILLING_STRIPE_KEY = os.environ.get("BILLING_STRIPE_KEY", "")  # of the platform's account; empty: billing is off
BILLING_STRIPE_URL = url("BILLING_STRIPE_URL", os.environ.get("BILLING_STRIPE_URL", "").rstrip("/"), "http", "https")
BILLING_WEBHOOK_SECRET = os.environ.get("BILLING_WEBHOOK_SECRET", "")
BILLING_GRACE_DAYS = whole("BILLING_GRACE_DAYS", 7)  # from a failed invoice to refused live payments
if BILLING_STRIPE_KEY.startswith(("sk_live_", "rk_live_")) and not PRODUCTION:
    raise ImproperlyConfigured("BILLING_STRIPE_KEY wants a test key where ALLOWED_HOSTS names only this machine")
EMAIL_URL = url("EMAIL_URL", os.environ.get("EMAIL_URL", ""), "smtp", "smtps", "smtp+tls", "smtp+ssl")
if EMAIL_URL and not REGISTRY_URL:
    raise ImproperlyConfigured(
        "REGISTRY_URL wants the public base URL, such as https://pay.example.com, where EMAIL_URL is set: links in e-mails begin with it"
    )
DEFAULT_FROM_EMAIL = os.environ.get("EMAIL_FROM", "") or "registry@localhost"
MAILERS = {"default": mailer(EMAIL_URL)}  # unused without a server: registry.tenants.mail

# -- Alerts (registry.operators.alerts) -----------------------------------------------------------
ALERT_EMAIL = emails("ALERT_EMAIL", os.environ.get("ALERT_EMAIL", ""))  # who is told; EMAIL_URL sends it
ALERT_WEBHOOK_URL = url("ALERT_WEBHOOK_URL", os.environ.get("ALERT_WEBHOOK_URL", ""), "http", "https")
ALERT_WEBHOOK_SECRET = signing_secret("ALERT_WEBHOOK_SECRET", os.environ.get("ALERT_WEBHOOK_SECRET", ""))
if ALERT_EMAIL and not EMAIL_URL:
    raise ImproperlyConfigured("ALERT_EMAIL wants EMAIL_URL, the mail server that sends to these addresses")
if ALERT_WEBHOOK_URL and not ALERT_WEBHOOK_SECRET:
    raise ImproperlyConfigured("ALERT_WEBHOOK_URL wants ALERT_WEBHOOK_SECRET, with which its messages are signed")

LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO").upper()
LOG_FORMAT = os.environ.get("LOG_FORMAT", "json")
LOG_CHANGES = flag("LOG_CHANGES", True)  # a line for each change of state of a payment, refund, job and so on
LOG_SLOW_STATEMENT_MS = whole("LOG_SLOW_STATEMENT_MS", 1000)  # 0: no warnings
LOG_SLOW_LOOP_MS = whole("LOG_SLOW_LOOP_MS", 500)  # 0: no warnings
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
    raise ImproperlyConfigured(f"LOG_LEVEL wants DEBUG, INFO, WARNING, ERROR or CRITICAL, got {LOG_LEVEL!r}")
if LOG_FORMAT not in ("json", "console"):
    raise ImproperlyConfigured(f"LOG_FORMAT wants json or console, got {LOG_FORMAT!r}")

LOGGING_CONFIG = "registry.telemetry.logs.configure_logging"
LOGGING = {
    "level": LOG_LEVEL,
    "format": LOG_FORMAT,
    "changes": LOG_CHANGES,
    "host": REGISTRY_HOST,
    "process": REGISTRY_PROCESS,
}

# -- Traces (registry.telemetry.traces): off without an endpoint ------------------------------------------
OTEL_EXPORTER_OTLP_ENDPOINT = url(
    "OTEL_EXPORTER_OTLP_ENDPOINT", os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""), "http", "https"
)
OTEL_EXPORTER_OTLP_HEADERS = pairs("OTEL_EXPORTER_OTLP_HEADERS")  # checked here, read by the exporter itself
OTEL_SERVICE_NAME = os.environ.get("OTEL_SERVICE_NAME", "") or "registry"
TRACE_SAMPLE_RATE = share("TRACE_SAMPLE_RATE", 0.01)  # of tenants without a rate of their own
TRACE_VIEWER_URL = url_with("TRACE_VIEWER_URL", "{trace_id}")
SLOW_PAYMENT = whole("SLOW_PAYMENT", 10, least=1)  # seconds from acceptance to the outcome, above which it is logged
