"""Sources of evidence for a setting: each says what every setting is worth, before any label is."""
