"""``python -m workflow_service``: the command line."""

from workflow_service.cli import main

if __name__ == "__main__":
    main()
