/** Which forkstep this is. */
import { version } from '../../package.json';

export { version };

/** Set by the build: `+COMMIT`, or nothing outside a repository. Not there in sources that are run as they are. */
declare const FORKSTEP_BUILD: string | undefined;

/** The version and what it was built from, as results name it: 0.1.0+b59dbc5. */
export const builtVersion = version + (typeof FORKSTEP_BUILD === 'string' ? FORKSTEP_BUILD : '');
