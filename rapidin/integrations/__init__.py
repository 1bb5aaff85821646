"""rapidin inside other tools: LangChain, LlamaIndex, and agents over MCP; each module needs its extra installed.

Nothing is imported here, so that one of them works without the others' packages.
"""
