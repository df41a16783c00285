"""The Python face of the store: durable commits, consistent reads, watches that wake asyncio tasks."""
