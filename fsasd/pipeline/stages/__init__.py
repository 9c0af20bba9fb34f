"""The stages of the method, a module each; ``plan(experiment, earlier)`` in it plans them."""
