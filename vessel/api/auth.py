"""Who asks. Stands in until keys are checked here."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends


async def tenant() -> str:
    """Return whose jobs, files and batches the request may see."""
    return "default"


Tenant = Annotated[str, Depends(tenant)]
