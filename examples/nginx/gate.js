// Sends each comment to infer before it reaches the site. This is a content handler because nginx
// has read the body when it calls one; `auth_request` runs earlier, and never sends a body.

import qs from 'querystring';

async function check(r) {
    const comment = read(r);
    if (comment === null) return r.return(400, 'no text in the field `' + r.variables.comment_field + '`\n');
    let action = null;
    try {
        const answer = await r.subrequest('/_infer', { method: 'POST', body: JSON.stringify({ input: comment }) });
        action = answer.headersOut['x-infer-action'];
    } catch (error) {
        r.error('infer is unavailable: ' + error);
    }
    // Only a verdict has the header. Errors, such as a 403 for a wrong key or a 502, do not.
    if (action === 'block') return r.return(403, 'the comment was not accepted\n');
    if (action === 'allow' || action === 'review') return r.internalRedirect('@origin');
    if (r.variables.infer_fail === 'open') return r.internalRedirect('@origin');
    return r.return(503, 'comments cannot be accepted now\n');
}

// Returns the comment's text, or null. nginx gives no text for a body that it wrote to a file.
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
