// A comment is judged before it is passed on. nginx has read the body when a content handler runs, which is why this is one:
// `auth_request` asks before that, and never sends a body.

import qs from 'querystring';

async function check(r) {
    const comment = read(r);
    if (comment === null) return r.return(400, 'no text in the field `' + r.variables.comment_field + '`\n');
    let action = null;
    try {
        const answer = await r.subrequest('/_infer', { method: 'POST', body: JSON.stringify({ input: comment }) });
        action = answer.headersOut['x-infer-action'];
    } catch (error) {
        r.error('infer cannot be asked: ' + error);
    }
    // Only a verdict has the header: a 403 for a wrong key, or a 502, is none.
    if (action === 'block') return r.return(403, 'the comment was not accepted\n');
    if (action === 'allow' || action === 'review') return r.internalRedirect('@origin');
    if (r.variables.infer_fail === 'open') return r.internalRedirect('@origin');
    return r.return(503, 'comments cannot be accepted now\n');
}

// The comment's text, or null. A body that was too long for memory is in a file, and has no text here.
function read(r) {
    const field = r.variables.comment_field;
    try {
        const body = r.requestText;
        const type = r.headersIn['Content-Type'] || '';
        const value = type.includes('json') ? JSON.parse(body)[field] : qs.parse(body)[field];
        return typeof value === 'string' ? value : null;
    } catch (error) {
        return null;
    }
}

export default { check };
