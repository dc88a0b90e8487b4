"""Drives a server with ms-enclave's own client, as its documentation does; prints what it saw."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from ms_enclave.sandbox.manager import HttpSandboxManager
from ms_enclave.sandbox.model import (
    DockerNotebookConfig,
    DockerSandboxConfig,
    SandboxManagerConfig,
    SandboxStatus,
    SandboxType,
    ToolType,
)

BASE_URL = sys.argv[1]
IMAGE = "python:3.11-slim"
SEEN = {}


def manager(**config):
    return HttpSandboxManager(config=SandboxManagerConfig(base_url=BASE_URL, **config))


async def lifecycle():
    async with manager() as m:
        config = DockerSandboxConfig(
            image=IMAGE,
            memory_limit="256m",
            env_vars={"GREETING": "hi"},
            tools_config={"python_executor": {}, "shell_executor": {}, "file_operation": {}},
        )
        sandbox = await m.create_sandbox(SandboxType.DOCKER, config)
        info = await m.get_sandbox_info(sandbox)
        SEEN["info"] = [info.status.value, info.type, info.config["memory_limit"], sorted(info.available_tools)]
        SEEN["listed"] = [one.id == sandbox for one in await m.list_sandboxes(SandboxStatus.RUNNING)]
        run = lambda tool, **parameters: m.execute_tool(sandbox, tool, parameters)
        python = await run("python_executor", code='print("Hello from sandbox!")')
        SEEN["python"] = [python.status.value, python.output, python.error]
        shell = await run("shell_executor", command="echo $GREETING; exit 3")
        SEEN["shell"] = [shell.status.value, shell.output, shell.error]
        slow = await run("shell_executor", command="sleep 20", timeout=1)
        SEEN["slow"] = [slow.status.value, slow.error]
        await run("file_operation", operation="write", file_path="/sandbox/notes/a b.txt", content="text")
        read = await run("file_operation", operation="read", file_path="/sandbox/notes/a b.txt")
        listing = await run("file_operation", operation="list", file_path="/sandbox/notes")
        SEEN["files"] = [read.output, "a b.txt" in listing.output]
        SEEN["tools"] = sorted(await m.get_sandbox_tools(sandbox))
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "deep").mkdir()
            (Path(directory) / "deep" / "file").write_text("archived")
            SEEN["put"] = await m.put_dir(sandbox, directory, "/data/new")
        SEEN["archive"] = (await run("shell_executor", command="cat /data/new/deep/file")).output
        try:
            await run("nosuch")
        except ValueError as error:
            SEEN["unknown tool"] = str(error)
        SEEN["stopped"] = await m.stop_sandbox(sandbox)
        try:
            await run("shell_executor", command="true")
        except ValueError as error:
            SEEN["not active"] = str(error).replace(sandbox, "ID")
        SEEN["deleted"] = [await m.delete_sandbox(sandbox), await m.delete_sandbox(sandbox)]
        SEEN["gone"] = await m.get_sandbox_info(sandbox)
        try:
            await m.create_sandbox(SandboxType.DOCKER, {"memory_limit": "lots"})
        except RuntimeError as error:
            SEEN["refused"] = "memory_limit" in str(error)
        SEEN["health"] = (await m.health_check())["healthy"]


async def mounted():
    """Files that are shared with the host, below a directory that its operator allows."""
    directory = Path(sys.argv[2])
    (directory / "input.txt").write_text("from the host")
    async with manager() as m:
        config = DockerSandboxConfig(
            image=IMAGE,
            volumes={str(directory): {"bind": "/sandbox/data", "mode": "rw"}},
            tools_config={"python_executor": {}, "file_operation": {}},
        )
        sandbox = await m.create_sandbox(SandboxType.DOCKER, config)
        read = await m.execute_tool(
            sandbox, "file_operation", {"operation": "read", "file_path": "/sandbox/data/input.txt"}
        )
        code = "open('/sandbox/data/output.txt', 'w').write('from the sandbox')"
        await m.execute_tool(sandbox, "python_executor", {"code": code})
        SEEN["mounted"] = [read.output, (directory / "output.txt").read_text()]
        try:
            await m.create_sandbox(
                SandboxType.DOCKER,
                DockerSandboxConfig(image=IMAGE, volumes={"/etc": {"bind": "/host", "mode": "ro"}}),
            )
        except RuntimeError as error:
            SEEN["mount refused"] = "allowed_mounts" in str(error)


async def notebook():
    async with manager() as m:
        config = DockerNotebookConfig(image=IMAGE, tools_config={"notebook_executor": {}})
        sandbox = await m.create_sandbox(SandboxType.DOCKER_NOTEBOOK, config)
        info = await m.get_sandbox_info(sandbox)
        await m.execute_tool(sandbox, "notebook_executor", {"code": "x = 41"})
        cell = await m.execute_tool(sandbox, "notebook_executor", {"code": "print('in');\nx + 1"})
        SEEN["notebook"] = [info.type, cell.status.value, cell.output]


async def pool():
    async with manager(pool_size=2) as m:
        config = DockerSandboxConfig(image=IMAGE, tools_config={"python_executor": {}, "shell_executor": {}})
        ids = await m.initialize_pool(pool_size=2, sandbox_type=SandboxType.DOCKER, config=config)
        SEEN["pool"] = len(set(ids))
        calls = [m.execute_tool_in_pool("python_executor", {"code": f"print({n} * {n})"}) for n in range(8)]
        SEEN["pooled"] = [result.output for result in await asyncio.gather(*calls)]
        hold = [m.execute_tool_in_pool("shell_executor", {"command": "sleep 3"}) for _ in range(2)]
        holding = [asyncio.create_task(one) for one in hold]
        await asyncio.sleep(0.5)
        try:
            await m.execute_tool_in_pool("shell_executor", {"command": "true"}, timeout=0.5)
        except TimeoutError as error:
            SEEN["pool timeout"] = str(error)
        await asyncio.gather(*holding)
        try:
            await m.execute_tool_in_pool("nosuch", {})
        except ValueError as error:
            SEEN["pool unknown tool"] = str(error)
    async with manager() as m:
        SEEN["left"] = len(await m.list_sandboxes())


for part in (lifecycle, mounted, notebook, pool):
    asyncio.run(part())
print(json.dumps(SEEN))
