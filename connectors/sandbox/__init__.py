"""Local stand-ins of HubSpot, Zendesk and Teams, for the demo, for tests and for integrators."""

from connectors.sandbox.app import create_app, serve, serving

__all__ = ["create_app", "serve", "serving"]
