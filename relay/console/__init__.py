"""The console: pages for people who never open a terminal, thin views over store and rules.

A file of this package has the views of some pages, and registers them on a blueprint made by
:func:`relay.console.pages.blueprint`.
"""
