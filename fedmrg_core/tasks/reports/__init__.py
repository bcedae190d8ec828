"""The paper's task: hospitals write reports of their X-rays together."""
