"""Text metrics, clinical metrics, floors and statistics over stored predictions."""
