"""Histories: the past of the streams, from files or a topic, as columns to train and backtest on."""
