"""Named workflows and contract analysis: FastAPI, Celery, LangGraph and PostgreSQL on homeloop."""
