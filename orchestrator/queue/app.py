"""Every Celery setting, once, with its reason."""

from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

from orchestrator import config
from orchestrator.core import brokerurl
from orchestrator.queue import embedded, messages, transport

TRANSPORT_ALIASES[transport.ALIAS] = transport.CLASS


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one side waits for the broker, in seconds."""

    connect: float
    reply: float


#: A person waits: a hung broker may cost a moment, never the command.
CLIENT = Patience(connect=2, reply=2)
#: A worker's reply time lies above its blocking pop of one second.
WORKER = Patience(connect=5, reply=30)


def create(settings: config.Settings, patience: Patience) -> Celery:
    """Return a Celery app that knows no tasks."""
    url = _url(settings)
    app = Celery("orch", broker=_for_kombu(url), set_as_current=False)
    app.conf.update(_conf(settings, patience), broker_use_ssl=_tls(url))
    return app


def _url(settings: config.Settings) -> str:
    """Return the broker's URL, password and all."""
    if settings.broker_url is not None:
        return settings.broker_url.get_secret_value()
    return f"redis+socket://{embedded.socket(settings)}?virtual_host=0"


def _for_kombu(url: str) -> str:
    """Return the URL with our transport's name; TLS goes by a setting of its own."""
    scheme, _, rest = url.partition("://")
    if scheme == "redis+socket":
        return f"{transport.ALIAS}+socket://{rest}"
    return f"{transport.ALIAS}://{rest.partition('?')[0]}"


def _tls(url: str) -> dict[str, Any] | None:
    """Return what the client library wants to know; Kombu by itself verifies nothing where a URL says nothing."""
    tls = brokerurl.tls(url)
    if tls is None:
        return None
    return {
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.check_hostname,
        "ssl_ca_certs": tls.ca_certs,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
    }


def _conf(settings: config.Settings, patience: Patience) -> dict[str, Any]:
    return {
        # The database counts attempts. Late acknowledgement loses a job whose process is killed and doubles one that
        # outlives the visibility timeout.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        # A message that waits in a busy worker is a job that an idle one does not get.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        # Results are rows.
        "result_backend": None,
        "task_ignore_result": True,
        # The body is untrusted, and empty.
        "task_serializer": "json",
        "accept_content": ["json"],
        # Queues of our own: a foreign worker on the same server would take messages from `celery`, and drop them.
        "task_queues": [Queue(name) for name in messages.QUEUES.values()],
        "task_default_queue": messages.QUEUES[min(messages.QUEUES)],
        "task_routes": {messages.TASKS[stage]: {"queue": messages.QUEUES[stage]} for stage in messages.TASKS},
        "task_create_missing_queues": False,
        "broker_transport_options": {
            "global_keyprefix": settings.broker_prefix,
            "socket_connect_timeout": patience.connect,
            "socket_timeout": patience.reply,
            "socket_keepalive": True,
        },
        # At the default of 100 tries the worker exits.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Nor may a server that is full, read-only or loads its data end the worker.
        "broker_channel_error_retry": True,
        # A blip would cancel the running job and leave it invisible; 6.0 turns this on.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Draining is ours: a soft shutdown left the training an orphan.
        "worker_soft_shutdown_timeout": 0,
        # Its broadcast channel takes forged shutdowns; what is wished of a job stands in its row.
        "worker_enable_remote_control": False,
        # Log lines are ours.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Publishing is best effort; the reconciler tops up.
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0.2, "interval_step": 0},
    }
