"""Settings: read from the environment once, refused with the variable's name when wrong."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from valdrix.kernel.addresses import AddressError, HostList, Network, read_host_list, read_networks
from valdrix.kernel.sealing import SealingError, SealingKey, read_sealing_keys
from valdrix.kernel.signing import SigningKey, SigningKeyError, read_signing_key
from valdrix.settings.logs import build_logging

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent.parent


def _required(name: str) -> str:
    value = str(env.str(name, default="")).strip()
    if not value:
        raise ImproperlyConfigured(f"{name} is not set, and has no default")
    return value


def _database(name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = env.db_url_config(_required(name))
    except (ValueError, environ.ImproperlyConfigured) as error:
        raise ImproperlyConfigured(f"{name} is not a database URL") from error
    if config.get("ENGINE") != "django.db.backends.postgresql":
        raise ImproperlyConfigured(f"{name} must be a postgresql:// URL")
    config["ENGINE"] = "valdrix.kernel.postgresql"
    # A new session plans for a tenth of a second of the server's time before it is as fast as others.
    config["CONN_MAX_AGE"] = 600
    config["CONN_HEALTH_CHECKS"] = True
    config.setdefault("OPTIONS", {}).update(
        {
            "connect_timeout": 2,
            "application_name": "valdrix",
            # A server that is gone without a word is noticed within seconds.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 5000,
        }
    )
    return config


def _number(name: str, *, default: int, minimum: int, maximum: int) -> int:
    text = env.str(name, default=str(default))
    if not (text.isascii() and text.isdigit() and minimum <= int(text) <= maximum):
        raise ImproperlyConfigured(f"{name} must be a whole number from {minimum} to {maximum}")
    return int(text)


def _telemetry_store() -> dict[str, str] | None:
    """Return what the telemetry store's connections have of their own; None turns telemetry off.

    It is a way into the same database by another role: a URL, or that role's password, with
    everything else taken from DATABASE_URL.
    """
    if env.str("TELEMETRY_DATABASE_URL", default=""):
        config = _database("TELEMETRY_DATABASE_URL")
        names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER"}
        given = {name: str(config[key]) for name, key in names.items() if config[key]}
        return {"user": "valdrix_telemetry", **given, "password": config["PASSWORD"]}
    password = env.str("TELEMETRY_DATABASE_PASSWORD", default="")
    return {"user": "valdrix_telemetry", "password": password} if password else None


EMBEDDED = env.bool("VALDRIX_EMBEDDED", default=False)
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = _required("DJANGO_SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# The application runs as a role that owns nothing; only migrations use the owner's connection.
DATABASES = {"default": _database("DATABASE_URL")}
if env.str("DATABASE_OWNER_URL", default=""):
    DATABASES["owner"] = _database("DATABASE_OWNER_URL")
    # Both names are one database; tests create it as the owner and then connect as the app.
    DATABASES["default"]["TEST"] = {"MIRROR": "owner"}
ATOMIC_REQUESTS = False

INSTALLED_APPS = [
    "valdrix",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "governance",
    "billing",
    "enforcement",
    "telemetry",
]

MIDDLEWARE = [
    "valdrix.kernel.http.letting_go.LettingGoMiddleware",
    "valdrix.kernel.http.request_id.RequestIdMiddleware",
    "valdrix.kernel.http.measuring.MeasuringMiddleware",
    "valdrix.kernel.http.content_policy.ContentPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "valdrix.kernel.http.throttling.AddressThrottleMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "valdrix.urls"
WSGI_APPLICATION = "valdrix.wsgi.application"
AUTH_USER_MODEL = "governance.User"
APPEND_SLASH = False

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
            ]
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en-us"

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / ".valdrix" / "static"
if EMBEDDED:
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = EMBEDDED

# TLS is ended by the proxy in front of external set-ups; the embedded one speaks plain loopback.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not EMBEDDED
# A browser takes a name with this prefix only over TLS, from this very host, for all paths: no
# neighbour below the same domain can plant a cookie of that name.
_COOKIE_PREFIX = "" if EMBEDDED else "__Host-"
SESSION_COOKIE_NAME = f"{_COOKIE_PREFIX}valdrix_session"
CSRF_COOKIE_NAME = f"{_COOKIE_PREFIX}valdrix_csrf"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
# Lax, so that a link in a message opens the page for who is signed in; no page acts on GET.
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
# The console ends idle sessions sooner: governance.admin.signing_in.
SESSION_COOKIE_AGE = 12 * 3600
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["governance.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["valdrix.kernel.http.bodies.StrictJsonParser"],
    "DEFAULT_RENDERER_CLASSES": ["valdrix.kernel.http.rendering.OrjsonRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["billing.api.throttling.TenantThrottle"],
    "EXCEPTION_HANDLER": "valdrix.kernel.http.problem_response.handle_exception",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Valdrix",
    "DESCRIPTION": "May this change, with this cost, happen? Decided, reserved and proven.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
}

# The gate's time budget: what one evaluation may take before it fails safe, in milliseconds.
GATE_TIME_BUDGET_MS = _number(
    "ENFORCEMENT_GATE_TIMEOUT_MS", default=2000, minimum=50, maximum=30000
)
GATE_LOCK_TIMEOUT_MS = _number(
    "ENFORCEMENT_GATE_LOCK_TIMEOUT_MS", default=1500, minimum=10, maximum=30000
)

# Telemetry: off here is off for good; the switch in its own table is for a running system.
TELEMETRY_ENABLED = env.bool("TELEMETRY_ENABLED", default=True)
TELEMETRY_STORE = _telemetry_store()
TELEMETRY_QUEUE_EVENTS = _number(
    "TELEMETRY_QUEUE_EVENTS", default=5000, minimum=100, maximum=100000
)
TELEMETRY_LONGEST_PAUSE_SECONDS = _number(
    "TELEMETRY_LONGEST_PAUSE_SECONDS", default=30, minimum=1, maximum=3600
)
TELEMETRY_READ_TIMEOUT_MS = _number(
    "TELEMETRY_READ_TIMEOUT_MS", default=1500, minimum=50, maximum=10000
)
TELEMETRY_RETENTION_DAYS = _number("TELEMETRY_RETENTION_DAYS", default=30, minimum=1, maximum=730)

# Who issues approval tokens, as verifiers elsewhere know this installation.
APPROVAL_TOKEN_ISSUER = env.str("ENFORCEMENT_TOKEN_ISSUER", default="valdrix").strip() or "valdrix"
# The namespace that Valdrix itself runs in: an admission webhook must not hold up its own pods.
OWN_NAMESPACE = env.str("VALDRIX_NAMESPACE", default="valdrix-system")

# Without a broker the jobs of valdrix.schedule run in `manage.py run_jobs`.
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="") or env.str("REDIS_URL", default="")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = TIME_ZONE
# A request may prompt a job; it does not wait for a broker that is gone.
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 1}


def _signing_key() -> SigningKey | None:
    """Return the key of signed statements; None where none is configured at all."""
    seed = env.str("ENFORCEMENT_EXPORT_SIGNING_KEY", default="")
    key_id = env.str("ENFORCEMENT_EXPORT_SIGNING_KID", default="")
    if not seed and not key_id:
        return None
    try:
        return read_signing_key(key_id=key_id, seed=seed)
    except SigningKeyError as error:
        raise ImproperlyConfigured(
            f"ENFORCEMENT_EXPORT_SIGNING_KEY and ENFORCEMENT_EXPORT_SIGNING_KID: {error}"
        ) from None


EXPORT_SIGNING_KEY = _signing_key()
# Public halves of keys that signed before: what they signed still verifies.
EXPORT_RETIRED_PUBLIC_KEYS = env.list("ENFORCEMENT_EXPORT_RETIRED_PUBLIC_KEYS", default=[])


def _checkpoint_directory() -> Path | None:
    """Return where checkpoints are kept outside the database; None where they are not."""
    text = env.str("ENFORCEMENT_CHECKPOINT_DIR", default="").strip()
    if text:
        return Path(text).resolve()
    return BASE_DIR / ".valdrix" / "checkpoints" if EMBEDDED else None


LEDGER_CHECKPOINT_DIR = _checkpoint_directory()


def _networks(name: str) -> tuple[Network, ...]:
    try:
        return read_networks(env.list(name, default=[]))
    except AddressError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from None


def _sealing_keys() -> tuple[SealingKey, ...]:
    """Return the keys of stored secrets of others; none where none is configured."""
    try:
        return read_sealing_keys(env.list("SECRET_SEALING_KEYS", default=[]))
    except SealingError as error:
        raise ImproperlyConfigured(f"SECRET_SEALING_KEYS: {error}") from None


def _readable_file(name: str) -> str | None:
    path = env.str(name, default="")
    if path and not Path(path).is_file():
        raise ImproperlyConfigured(f"{name} names no file")
    return path or None


SECRET_SEALING_KEYS = _sealing_keys()


def _mail() -> dict[str, Any]:
    """Return how mail is sent; without EMAIL_URL the embedded set-up writes it to files."""
    if not env.str("EMAIL_URL", default=""):
        return {"EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend"}
    try:
        return dict(env.email_url("EMAIL_URL"))
    except (ValueError, environ.ImproperlyConfigured) as error:
        raise ImproperlyConfigured("EMAIL_URL is not one, such as smtp://host:25") from error


_MAIL = _mail()
# Without it people are told by webhooks only.
MAIL_IS_CONFIGURED = EMBEDDED or bool(env.str("EMAIL_URL", default=""))
EMAIL_BACKEND = _MAIL["EMAIL_BACKEND"]
EMAIL_FILE_PATH = str(BASE_DIR / ".valdrix" / "mail")
EMAIL_HOST = _MAIL.get("EMAIL_HOST") or "localhost"
EMAIL_PORT = _MAIL.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = _MAIL.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = _MAIL.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = bool(_MAIL.get("EMAIL_USE_TLS", False))
EMAIL_USE_SSL = bool(_MAIL.get("EMAIL_USE_SSL", False))
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="valdrix@localhost")


def _public_url() -> str:
    """Return the address that links in messages begin with."""
    url = str(env.str("PUBLIC_URL", default="http://127.0.0.1:8000")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ImproperlyConfigured("PUBLIC_URL must begin with https:// or http://")
    return url


PUBLIC_URL = _public_url()


def _flag(name: str, *, default: bool) -> bool:
    text = env.str(name, default=str(default)).strip().lower()
    if text not in {"true", "false", "1", "0", "yes", "no", "on", "off"}:
        raise ImproperlyConfigured(f"{name} must be true or false")
    return text in {"true", "1", "yes", "on"}


# Limits: by address for whoever shows no credential, by tenant, and for gates over all tenants.
RATE_LIMIT_PER_MINUTE = _number("RATE_LIMIT_PER_MINUTE", default=250, minimum=1, maximum=1_000_000)
# None where each tenant's tier says it.
TENANT_API_PER_MINUTE = (
    _number("TENANT_API_PER_MINUTE", default=6_000, minimum=60, maximum=6_000_000)
    if env.str("TENANT_API_PER_MINUTE", default="")
    else None
)
ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = _number(
    "ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP", default=600, minimum=1, maximum=100_000
)
ENFORCEMENT_GLOBAL_ABUSE_GUARD_ENABLED = _flag(
    "ENFORCEMENT_GLOBAL_ABUSE_GUARD_ENABLED", default=True
)
ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP = _number(
    "ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP", default=120_000, minimum=60, maximum=10_000_000
)
# Metered use is switched off for everybody, whatever is left of anybody's day.
METERED_USE_SUSPENDED = _flag("METERED_USE_SUSPENDED", default=False)
# How many requests one process takes at once; gunicorn_conf sets the first by the threads there are.
WEB_REQUESTS_AT_ONCE = _number("WEB_REQUESTS_AT_ONCE", default=64, minimum=2, maximum=10_000)
WEB_OTHERS_AT_ONCE = _number(
    "WEB_OTHERS_AT_ONCE",
    default=WEB_REQUESTS_AT_ONCE - max(1, WEB_REQUESTS_AT_ONCE // 4),
    minimum=1,
    maximum=10_000,
)
if WEB_OTHERS_AT_ONCE >= WEB_REQUESTS_AT_ONCE:
    raise ImproperlyConfigured(
        "WEB_OTHERS_AT_ONCE must be below WEB_REQUESTS_AT_ONCE: the rest is kept for gates"
    )
# And how many of them may be one tenant's, so that none keeps all others out.
WEB_TENANT_AT_ONCE = _number(
    "WEB_TENANT_AT_ONCE",
    default=max(1, WEB_REQUESTS_AT_ONCE * 8 // 9),
    minimum=1,
    maximum=10_000,
)
# All machines count together in Redis; without one, the processes of each machine in a file.
THROTTLE_REDIS_URL = env.str("REDIS_URL", default="")
THROTTLE_DIRECTORY = Path(
    env.str("THROTTLE_DIRECTORY", default="")
    or (
        BASE_DIR / ".valdrix" / "throttle"
        if EMBEDDED
        else Path(tempfile.gettempdir()) / f"valdrix-{os.geteuid()}"
    )
)

# Whose X-Forwarded-For is believed.
TRUST_PROXY_HEADERS = _flag("TRUST_PROXY_HEADERS", default=False)
TRUSTED_PROXY_CIDRS = _networks("TRUSTED_PROXY_CIDRS")
if TRUST_PROXY_HEADERS and not TRUSTED_PROXY_CIDRS:
    raise ImproperlyConfigured("TRUST_PROXY_HEADERS is on, and TRUSTED_PROXY_CIDRS names no range")

# Where outbound calls may go besides the public internet, and whose certificates they trust too.
OUTBOUND_ALLOWED_NETWORKS = _networks("OUTBOUND_ALLOWED_NETWORKS")
OUTBOUND_CA_FILE = _readable_file("OUTBOUND_CA_FILE")


def _hosts(name: str, *, default: list[str]) -> HostList:
    try:
        return read_host_list(env.list(name, default=default))
    except AddressError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from None


# Whose run tasks are answered: the hosts of callbacks, of plans, and of where plans are stored.
RUN_TASK_HOSTS = _hosts(
    "ENFORCEMENT_RUN_TASK_HOSTS",
    default=[
        "app.terraform.io",
        "archivist.terraform.io",
        "app.eu.terraform.io",
        "archivist.eu.terraform.io",
    ],
)
# Whose workloads' tokens may be verified by keys that are discovered.
WORKLOAD_ISSUER_HOSTS = _hosts(
    "WORKLOAD_ISSUER_HOSTS", default=["token.actions.githubusercontent.com", "gitlab.com"]
)

LOGGING = build_logging(level=env.str("LOG_LEVEL", default="INFO"))
UNFOLD = {
    "SITE_TITLE": "Valdrix",
    "SITE_HEADER": "Valdrix",
    "SITE_SUBHEADER": "Economic control plane",
    "SITE_URL": None,
    "SITE_ICON": lambda request: static("valdrix/mark.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("valdrix/mark.svg")}
    ],
    "STYLES": [lambda request: static("valdrix/console.css")],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "COLORS": {
        "primary": {
            "50": "#eff6ff",
            "100": "#dbeafe",
            "200": "#bfdbfe",
            "300": "#93c5fd",
            "400": "#60a5fa",
            "500": "#3b82f6",
            "600": "#1d4ed8",
            "700": "#1e40af",
            "800": "#1e3a8a",
            "900": "#172f6b",
            "950": "#0f1f4d",
        },
    },
}
