"""The built-in components: a folder a kind, a file a component.

Nothing imports them by name: they are reached through the registry, as everyone's are.
"""
