"""Health of one table at one snapshot: metrics, issues, and the work each operation would find."""
