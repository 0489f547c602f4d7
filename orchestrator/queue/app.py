"""Every Celery setting, once, with its reason."""

from typing import Any

from celery import Celery
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

from orchestrator import config
from orchestrator.queue import broker, messages, transport

TRANSPORT_ALIASES[transport.ALIAS] = transport.CLASS


def create(settings: config.Settings) -> Celery:
    """Return a Celery app that hears doorbells, and knows no tasks yet; `dispatch` rings them."""
    url = broker.url(settings)
    app = Celery("orch", broker=_for_kombu(url), set_as_current=False)
    app.conf.update(_conf(settings), broker_use_ssl=broker.tls(url))
    return app


def _for_kombu(url: str) -> str:
    """Return the URL with our transport's name; TLS goes by a setting of its own."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "redis+socket":
        return f"{transport.ALIAS}+socket://{rest}"
    return f"{transport.ALIAS}://{rest.partition('?')[0]}"


def _conf(settings: config.Settings) -> dict[str, Any]:
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
        "task_create_missing_queues": False,
        "broker_transport_options": {
            "global_keyprefix": settings.broker_prefix,
            "socket_connect_timeout": broker.WORKER.connect,
            "socket_timeout": broker.WORKER.reply,
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
    }
