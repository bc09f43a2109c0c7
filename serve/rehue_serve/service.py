"""The parts of one replica that both protocols share, from API keys to Triton."""

import asyncio

from rehue_serve import metrics
from rehue_serve.admission import Admission, build_stopping_error
from rehue_serve.errors import Unavailable
from rehue_serve.keys import ApiKeys
from rehue_serve.pipeline import Pipeline
from rehue_serve.receiving import Receiving
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient
from rehue_serve.uploads import Uploads


class Service:
    """One replica's service. Belongs to one event loop."""

    def __init__(self, settings: Settings, triton: TritonClient) -> None:
        self.settings = settings
        self.triton = triton
        self.keys = ApiKeys(settings.api_keys_file)
        self.admission = Admission(settings)
        self.uploads = Uploads(settings)
        self.pipeline = Pipeline(settings, triton, self.admission)
        self.receiving = Receiving(settings)

    async def start(self) -> None:
        await self.keys.start()
        await self.triton.start()
        self._reporter = asyncio.create_task(self._report_requests())

    async def close(self) -> None:
        self._reporter.cancel()
        self.receiving.close()
        await self.keys.close()
        await self.triton.close()
        self.pipeline.close()

    @property
    def ready(self) -> bool:
        """Whether a photograph that arrives now can be colorized."""
        return self.triton.ready and not self.admission.draining

    def build_unready_error(self) -> Unavailable:
        """Build the error that says why the service is not ready."""
        if self.admission.draining:
            return build_stopping_error()
        return Unavailable("No Triton serves the default model.", retry_after=1.0)

    async def drain(self) -> None:
        """Refuse new photographs, and return when those in flight are answered."""
        self.admission.draining = True
        while self.admission.requests_in_flight or self.uploads.in_progress:
            await asyncio.sleep(0.02)

    async def _report_requests(self) -> None:
        while True:
            metrics.set_requests_in_flight(self.admission.requests_in_flight)
            await asyncio.sleep(1)
