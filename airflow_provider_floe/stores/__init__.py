"""The Floe store: policies, health reports, plans, operation records, schedule executions, leases, file journal."""
