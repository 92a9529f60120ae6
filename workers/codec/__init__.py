"""The codec endpoint: lets Temporal's UI and CLI read what is encrypted, if whoever asks may."""
