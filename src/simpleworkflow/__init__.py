"""Durable workflows on PostgreSQL."""
