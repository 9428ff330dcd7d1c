"""What a person sees: tables of results and of sweeps, plots. The only room that imports matplotlib."""
