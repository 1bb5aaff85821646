"""A store behind HTTP: searches, samples, a page to ask on; see `rapidin serve --help`.

FastAPI, uvicorn and prometheus-client (``rapidin[serve]``) are imported here only, this package by one command.
"""

from rapidin.service.app import Application, create_app
from rapidin.service.running import serve
from rapidin.service.service import Service
from rapidin.service.settings import Limits, ServiceSettings

__all__ = ["Application", "Limits", "Service", "ServiceSettings", "create_app", "serve"]
