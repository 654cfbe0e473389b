"""The service's API, with the ledger among its workflows: ``fault_api.py PORT``."""

import sys

import fault_ledger  # noqa: F401 - adds itself
import uvicorn

from workflow_service.api.app import create_app

if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
