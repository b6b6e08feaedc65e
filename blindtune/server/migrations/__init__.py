"""Alembic's migrations of the server's tables; each is fixed once it was released."""
