"""The report of a backtest as one HTML page: numbers in, a text out that needs nothing from elsewhere."""
