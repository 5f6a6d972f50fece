"""What the protocol does with rows, and what a sweep asks of them. All changes are made by the state that was seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.core.exceptions import ImproperlyConfigured, PermissionDenied, ValidationError
from django.db import router, transaction
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from storage.arguments import check_file_id
from storage.exceptions import InvalidKey
from storage.inspection import Inspector
from storage.streams import is_awaitable
from storage.types import FinalObject

from . import conf, core
from .core import Refused
from .models import Upload
from .signals import upload_finished

LEASE = timedelta(minutes=5)
"""How long telling of an upload may take. After that, whoever did it is taken for killed, and it is told again."""


NOT_ALLOWED = "you may not upload this"


def stored() -> QuerySet[Upload]:
    """All uploads, from the database that has the last change: a replica may not have it yet.

    With their owners, because a hook or receiver that is a coroutine function cannot ask for them.
    """
    return Upload.objects.using(router.db_for_write(Upload)).select_related("owner")


class Rows:
    """The uploads that the user of a request sees: only those of that user, or those of nobody without one.

    ``response`` is what a receiver of the signal has returned during the request, for the client.
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self.response: HttpResponse | None = None
        user = getattr(request, "user", None)
        self._owner = user if user is not None and user.is_authenticated else None
        self._own = stored().filter(owner=self._owner)

    def find(self, name: str) -> Upload | None:
        upload = self._own.filter(pk=UUID(hex=name)).first()
        if upload is not None and upload.telling is not None and upload.telling < timezone.now() - LEASE:
            self.response = tell_again(upload)
        return upload

    def create(self, size: int | None, metadata: dict[str, str], partial: bool) -> Upload:
        upload = self._allowed(Upload(size=size, metadata=metadata, partial=partial))
        upload.save(force_insert=True)
        return upload

    def joined(self, metadata: dict[str, str], names: Sequence[str]) -> Upload | None:
        """The upload that joins just these, if the client repeats a request whose answer it has not got."""
        states = [core.FINISHING, core.FINISHED]
        return self._own.filter(concat=list(names), metadata=metadata, state__in=states).first()

    def join(self, size: int, metadata: dict[str, str], names: Sequence[str]) -> Upload:
        upload = self._allowed(Upload(size=size, metadata=metadata, concat=list(names), state=core.FINISHING))
        with transaction.atomic(using=router.db_for_write(Upload)):
            # Of those who change this row the next waits for the end: so a request that was sent twice joins once.
            stored().filter(pk=UUID(hex=names[0])).update(turn=F("turn") + 1)
            other = self.joined(metadata, names)
            if other is None:
                upload.save(force_insert=True)
        return other or upload

    def _allowed(self, upload: Upload) -> Upload:
        """A new upload, which the project lets the user create."""
        conf.inspect()  # a wrong setting is told now, and not when all bytes have come
        upload.id, upload.owner, upload.expires = uuid4(), self._owner, _expiry()
        self._authorize(upload)
        if not upload.partial:
            upload.file_id = self._named(upload)
        return upload

    def _authorize(self, upload: Upload) -> None:
        authorize = conf.authorize()
        if authorize is None:
            return
        allowed = _called(authorize, self._request, upload)
        if allowed is False:
            raise Refused(403, NOT_ALLOWED)
        if allowed is not None and allowed is not True:
            raise ImproperlyConfigured(
                f"{conf.AUTHORIZE} returned a {type(allowed).__name__}: it returns None or True if the upload may be"
                " created, and False or raises PermissionDenied if not"
            )

    def _named(self, upload: Upload) -> str:
        hook = conf.file_id()
        named = f"tus/{upload.id}" if hook is None else _called(hook, upload)
        try:
            return check_file_id(named, "assemble")
        except InvalidKey as error:
            raise Refused(400, f"the name of the file cannot be used: {error.message}") from None
        except TypeError as error:
            raise ImproperlyConfigured(f"{conf.FILE_ID} returned what is no id: {error}") from None

    def set_size(self, upload: Upload, size: int) -> Upload | None:
        changed = copy.copy(upload)
        changed.size = size
        self._authorize(changed)
        unknown = stored().filter(pk=upload.pk, turn=upload.turn, state=core.UPLOADING, size=None)
        return changed if unknown.update(size=size) else None

    def look(self, upload: Upload) -> Upload | None:
        """The upload with its next turn, None if it is another request's, or over."""
        mine = copy.copy(upload)
        mine.turn, mine.expires = upload.turn + 1, _expiry()
        seen = stored().filter(pk=upload.pk, turn=upload.turn, state=core.UPLOADING)
        return mine if seen.update(turn=mine.turn, expires=mine.expires) else None

    def begin_finish(self, upload: Upload) -> bool:
        live = stored().filter(pk=upload.pk, state__in=[core.UPLOADING, core.FINISHING])
        return bool(live.update(state=core.FINISHING))

    def inspect(self) -> tuple[Inspector, ...]:
        """The functions that see the bytes before they are stored."""
        return conf.inspect()

    def finish(self, upload: Upload, final: FinalObject) -> Upload | None:
        """Store what became of the upload, and tell of it if nobody has before."""
        now = timezone.now()
        told = {"bucket": final.bucket, "key": final.key, "sha256": final.sha256 or "", "finished": now, "telling": now}
        with transaction.atomic(using=router.db_for_write(Upload)):
            # Also one that a sweep has let expire meanwhile: the object is there.
            row = stored().filter(pk=upload.pk, state__in=[core.FINISHING, core.EXPIRED])
            first = row.update(state=core.FINISHED, **told)
            if first:
                _joined_by(upload).update(state=core.FINISHED)
        finished = stored().filter(pk=upload.pk).first()
        if first and finished is not None:
            self.response = _tell(finished, final)
        return finished

    def reject(self, upload: Upload) -> bool:
        """Remove an upload that is to be finished, and those that it joins. False if it is finished, or removed."""
        with transaction.atomic(using=router.db_for_write(Upload)):
            deleted, _ = stored().filter(pk=upload.pk, state=core.FINISHING).delete()
            if deleted:
                _joined_by(upload).delete()
        return bool(deleted)

    def remove(self, upload: Upload) -> bool:
        deleted, _ = stored().filter(pk=upload.pk, state=upload.state).delete()
        return bool(deleted)


def _joined_by(upload: Upload) -> QuerySet[Upload]:
    return stored().filter(pk__in=[UUID(hex=name) for name in upload.concat])


def _called(hook: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the project returns. What it raises to refuse an upload is the answer."""
    try:
        result = hook(*arguments)
    except PermissionDenied as error:
        raise Refused(403, str(error) or NOT_ALLOWED) from None
    except ValidationError as error:
        raise Refused(400, " ".join(error.messages)) from None
    if is_awaitable(result):
        raise ImproperlyConfigured(f"{hook!r} returned a {type(result).__name__}, which nothing awaits")
    return result


def _tell(upload: Upload, final: FinalObject) -> HttpResponse | None:
    results = upload_finished.send_robust(sender=Upload, upload=upload, final=final)
    stored().filter(pk=upload.pk).update(telling=None)
    return next((result for _, result in results if isinstance(result, HttpResponse)), None)


def tell_again(upload: Upload) -> HttpResponse | None:
    """Tell of an upload whose telling was begun long ago, unless somebody else does."""
    begun = stored().filter(pk=upload.pk, telling=upload.telling)
    if upload.final is not None and begun.update(telling=timezone.now()):
        return _tell(upload, upload.final)
    return None


def _expiry() -> datetime | None:
    after = conf.expires()
    return None if after is None else timezone.now() + after


class Sessions:
    """What a sweep asks: see ``storage.sweep.Owner``."""

    def live(self, session: str) -> bool:
        """Whether the session has the parts of an upload that can go on."""
        name = core.as_name(core.name_of(session))
        upload = None if name is None else stored().filter(pk=UUID(hex=name)).first()
        return upload is not None and upload.state in (core.UPLOADING, core.FINISHING) and not upload.expired

    def over(self, dry_run: bool) -> Iterator[Iterator[str]]:
        """The sessions of uploads that have expired. From here on nobody can resume them."""
        now = timezone.now()
        if not dry_run:
            for upload in stored().filter(telling__lt=now - LEASE):
                tell_again(upload)
        # What is to be finished, and is not for as long, cannot be: the store or the name does not let it.
        late = stored().filter(state__in=[core.UPLOADING, core.FINISHING], expires__lte=now).order_by("pk")
        for upload in late.iterator():
            if dry_run or self._expire(upload, now):
                yield core.sessions_of(upload.name)
        if not dry_run:
            long_ago = now - (conf.expires() or conf.DEFAULT_EXPIRES)  # until then clients are told 410, and not 404
            stored().filter(state=core.EXPIRED, expires__lte=long_ago).delete()

    def _expire(self, upload: Upload, now: datetime) -> bool:
        still = stored().filter(pk=upload.pk, state=upload.state, expires__lte=now)
        return bool(still.update(state=core.EXPIRED))
