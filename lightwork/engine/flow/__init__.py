"""When a flow runs, and what its passes are told: calls, schedules, layouts."""
