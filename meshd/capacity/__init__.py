"""How many replicas and jobs fit on the nodes and into a project's quota.

`meshd.scaling` asks for every decision, `meshd.control.deploy` before a deployment, `meshd.jobs`
before a job starts. `allocate` shares out the nodes, `quota` the quotas; `admission`, `job_demand`
and `placement` say what can never fit. All of it is pure, except `job_demand.JobAdmission`, which
reads the present state.
"""
