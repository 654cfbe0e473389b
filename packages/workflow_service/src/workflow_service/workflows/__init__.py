"""Workflows: LangGraph graphs behind the Workflow port."""
