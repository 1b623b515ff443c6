"""gofax-relay: receive, verify, deduplicate, store, route and deliver SMS events."""
