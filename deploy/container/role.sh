#!/bin/sh
# The service connects as a role that is neither superuser nor BYPASSRLS: row security binds it.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE workflow_service LOGIN PASSWORD :'password';
CREATE DATABASE workflow_service OWNER workflow_service;
SQL
