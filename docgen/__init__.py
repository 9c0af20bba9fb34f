"""The generated pages of the documentation: commands, configuration, API, changes."""
