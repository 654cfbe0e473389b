"""What a worker tells of itself: log lines in the service's form, and figures for Prometheus."""

from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from celery import signals

from workflow_service.bootstrap import set_up_logs
from workflow_service.gateways.metrics import CONTENT_TYPE, exposition
from workflow_service.settings import Settings


def tell_of_worker(settings: Settings) -> None:
    """Set up logs and figures when a worker starts; other programs that load the application are left alone."""

    def configure(**_: Any) -> None:  # Any: what Celery passes along
        set_up_logs(settings)

    def serve_metrics(**_: Any) -> None:
        if settings.metrics_port:
            _serve(settings.metrics_host, settings.metrics_port)

    # Connected, it also keeps Celery from setting up logs in its own way.
    signals.setup_logging.connect(configure, weak=False)
    signals.worker_init.connect(serve_metrics, weak=False)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """Say nothing: each scrape would be a line."""


def _serve(host: str, port: int) -> None:
    """Answer ``/metrics`` from a thread of its own until the process ends."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:  # Any: WSGI's own
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there is /metrics only\n"]
        body = exposition()
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))])
        return [body]

    server: WSGIServer = make_server(host, port, answer, handler_class=_Quiet)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
