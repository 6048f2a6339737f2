"""The commands, one function each; the modules behind them load when a command runs."""
