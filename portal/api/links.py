"""The `Link` header of lists (RFC 8288): where the other pages of a list are."""

from urllib.parse import urlencode

from rest_framework.request import Request


def link_pages(request: Request, *, skip: int, limit: int, has_more: bool, total: int | None = None) -> dict[str, str]:
    """Return the header with `first`, `prev`, `next` and `last`, as far as there are such pages. `total` None: unknown."""
    last = None if total is None else max(0, total - 1) // limit * limit
    pages = {"first": 0}
    if skip:
        before = max(0, skip - limit)
        pages["prev"] = before if last is None else min(before, last)
    if has_more:
        pages["next"] = skip + limit
    if last is not None:
        pages["last"] = last
    filters = keep_filters(request)
    return link(request, {name: f"{filters}skip={start}&limit={limit}" for name, start in pages.items()})


def link_cursor(request: Request, *, limit: int, next_cursor: str | None) -> dict[str, str]:
    """Return the header with `first` and, if there is more, `next`."""
    filters = keep_filters(request)
    pages = {"first": f"{filters}limit={limit}"}
    if next_cursor:
        pages["next"] = f"{filters}limit={limit}&{urlencode({'cursor': next_cursor})}"
    return link(request, pages)


def keep_filters(request: Request) -> str:
    """Return the query without what names a page. It ends with `&`, unless it is empty."""
    others = {name: value for name, value in request.GET.items() if name not in ("skip", "limit", "cursor")}
    return f"{urlencode(others)}&" if others else ""


def link(request: Request, queries: dict[str, str]) -> dict[str, str]:
    """Return the header of these queries of the request's own address, which is absolute: few clients resolve others."""
    address = request.build_absolute_uri(request.path)
    return {"Link": ", ".join(f'<{address}?{query}>; rel="{name}"' for name, query in queries.items())}
