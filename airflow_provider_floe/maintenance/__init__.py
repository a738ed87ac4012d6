"""The use cases: assess, plan, execute, run. They combine the other rooms; no Airflow."""
