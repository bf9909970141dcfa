"""Streaming LSTM forecasts over Kafka."""

__version__ = "0.1.0"
