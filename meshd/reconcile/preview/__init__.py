"""Look ahead: the steps and the impact of a deployment before it happens. Pure.

Called by `meshd.control.deploy.preview`, for `meshd diff` and `meshd deploy`.
"""
