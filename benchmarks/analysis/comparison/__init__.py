"""Did it change? Two sets of runs matched case by case, their changes judged, written and drawn."""
