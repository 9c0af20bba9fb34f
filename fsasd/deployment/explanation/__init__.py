"""Why a recording has its score: the share of each frequency band and of each moment."""
