"""The API ``/api/v1``: thin views over the store and the rules, described by OpenAPI 3.1."""
